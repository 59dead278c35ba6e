"""The only room that touches a model: one forward, at most one backward a question, a Recording of plain arrays."""

from seewhy.recorder.differentiate import is_out_of_memory as is_out_of_memory
from seewhy.recorder.layout import Layout as Layout
from seewhy.recorder.pytorch import TorchRecorder as TorchRecorder
from seewhy.recorder.recording import Cost as Cost
from seewhy.recorder.recording import Needs as Needs
from seewhy.recorder.recording import Recording as Recording
from seewhy.recorder.recording import Recordings as Recordings
from seewhy.recorder.recording import Variation as Variation
from seewhy.recorder.table import LayerLike as LayerLike
from seewhy.recorder.table import LayerRow as LayerRow
from seewhy.recorder.table import LayerTable as LayerTable
