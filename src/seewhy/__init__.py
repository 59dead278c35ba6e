"""See why your vision model decided.

Everything public is loaded when it is first asked for, so that `import seewhy` and `seewhy --help` are quick.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy.checkup.doctor import doctor as doctor
    from seewhy.checkup.sanity import sanity as sanity
    from seewhy.comparison import Comparison as Comparison
    from seewhy.errors import ImageError as ImageError
    from seewhy.errors import LayerError as LayerError
    from seewhy.errors import MethodError as MethodError
    from seewhy.errors import MetricError as MetricError
    from seewhy.errors import ModelError as ModelError
    from seewhy.errors import PartialError as PartialError
    from seewhy.errors import RecordingError as RecordingError
    from seewhy.errors import RenderError as RenderError
    from seewhy.errors import SeewhyError as SeewhyError
    from seewhy.errors import TargetError as TargetError
    from seewhy.evaluation import Evaluation as Evaluation
    from seewhy.evaluation import evaluate as evaluate
    from seewhy.explainer import Explainer as Explainer
    from seewhy.explanation import Explanation as Explanation
    from seewhy.face import compare as compare
    from seewhy.face import compare_pair as compare_pair
    from seewhy.face import explain as explain
    from seewhy.face import layers as layers
    from seewhy.images import Preprocess as Preprocess
    from seewhy.maps import Augment as Augment
    from seewhy.maps import Noise as Noise
    from seewhy.maps import Transform as Transform
    from seewhy.maps import method as method
    from seewhy.maps import methods as methods
    from seewhy.measures import metric as metric
    from seewhy.measures import metrics as metrics
    from seewhy.measuring import measure as measure
    from seewhy.models import function as function
    from seewhy.models import image_text as image_text
    from seewhy.models import load as load
    from seewhy.recorder import Budget as Budget
    from seewhy.recorder import Layout as Layout
    from seewhy.recorder import Needs as Needs
    from seewhy.recorder import Recording as Recording
    from seewhy.targets import BoxTarget as BoxTarget
    from seewhy.targets import Region as Region
    from seewhy.targets import similar_to as similar_to

_HOME = {
    "Augment": "maps",
    "BoxTarget": "targets",
    "Budget": "recorder",
    "Comparison": "comparison",
    "Evaluation": "evaluation",
    "Explainer": "explainer",
    "Explanation": "explanation",
    "ImageError": "errors",
    "LayerError": "errors",
    "Layout": "recorder",
    "MethodError": "errors",
    "MetricError": "errors",
    "ModelError": "errors",
    "Needs": "recorder",
    "Noise": "maps",
    "PartialError": "errors",
    "Preprocess": "images",
    "Recording": "recorder",
    "RecordingError": "errors",
    "Region": "targets",
    "RenderError": "errors",
    "SeewhyError": "errors",
    "TargetError": "errors",
    "Transform": "maps",
    "compare": "face",
    "compare_pair": "face",
    "doctor": "checkup.doctor",
    "evaluate": "evaluation",
    "explain": "face",
    "function": "models",
    "image_text": "models",
    "layers": "face",
    "load": "models",
    "measure": "measuring",
    "method": "maps",
    "methods": "maps",
    "metric": "measures",
    "metrics": "measures",
    "sanity": "checkup.sanity",
    "similar_to": "targets",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the public names, in one place
__version__ = version("seewhy")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'seewhy' has no attribute '{name}'")
    value = getattr(import_module(f"seewhy.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
