"""Reading pictures safely, preparing them for a model, and the way back to the original pixels."""

from seewhy.images.arrays import as_tensor as as_tensor
from seewhy.images.arrays import is_array_file as is_array_file
from seewhy.images.arrays import read_array as read_array
from seewhy.images.arrays import refuse_other_formats as refuse_other_formats
from seewhy.images.callable import ASSUMED_WHOLE as ASSUMED_WHOLE
from seewhy.images.callable import CallablePreprocess as CallablePreprocess
from seewhy.images.display import picture_of as picture_of
from seewhy.images.geometry import Axis as Axis
from seewhy.images.geometry import Edges as Edges
from seewhy.images.geometry import Geometry as Geometry
from seewhy.images.geometry import size_words as size_words
from seewhy.images.preprocess import Preprocess as Preprocess
from seewhy.images.preprocess import Preprocessing as Preprocessing
from seewhy.images.preprocess import as_preprocessing as as_preprocessing
from seewhy.images.read import PIXEL_LIMIT as PIXEL_LIMIT
from seewhy.images.read import Picture as Picture
from seewhy.images.read import PictureSource as PictureSource
from seewhy.images.read import read as read
