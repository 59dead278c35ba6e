"""The only room that touches a model: one forward, at most one backward a question, a Recording of plain arrays."""

from seewhy.recorder.conditions import Budget as Budget
from seewhy.recorder.conditions import Conditions as Conditions
from seewhy.recorder.cost import Cost as Cost
from seewhy.recorder.layout import Layout as Layout
from seewhy.recorder.memory import is_out_of_memory as is_out_of_memory
from seewhy.recorder.outputs import OutputLike as OutputLike
from seewhy.recorder.pytorch import TorchRecorder as TorchRecorder
from seewhy.recorder.recording import Needs as Needs
from seewhy.recorder.recording import Perturbation as Perturbation
from seewhy.recorder.recording import Recording as Recording
from seewhy.recorder.recording import Sharing as Sharing
from seewhy.recorder.recording import Variation as Variation
from seewhy.recorder.recordings import Recordings as Recordings
from seewhy.recorder.table import LayerLike as LayerLike
from seewhy.recorder.table import LayerRow as LayerRow
from seewhy.recorder.table import LayerTable as LayerTable
from seewhy.recorder.variants import Derived as Derived
from seewhy.recorder.variants import Scores as Scores
from seewhy.recorder.variants import Variants as Variants
