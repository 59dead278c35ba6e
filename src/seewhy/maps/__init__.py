"""The methods: pure functions from what a recording holds to a raw map. One function, one decorator, nothing else to edit."""

from seewhy.maps import gradient as gradient  # isort: skip - in the order of the table
from seewhy.maps import components as components  # isort: skip
from seewhy.maps import auto as auto  # isort: skip
from seewhy.maps import masking as masking  # isort: skip
from seewhy.maps import ablation as ablation  # isort: skip
from seewhy.maps import perturbation as perturbation  # isort: skip
from seewhy.maps import backprop as backprop  # isort: skip
from seewhy.maps import paths as paths  # isort: skip
from seewhy.maps import adaptive as adaptive  # isort: skip
from seewhy.maps import xrai as xrai  # isort: skip
from seewhy.maps import biased as biased  # isort: skip
from seewhy.maps import attention as attention  # isort: skip
from seewhy.maps import attn_lrp as attn_lrp  # isort: skip
from seewhy.maps.foreign import lrp as lrp  # isort: skip
from seewhy.maps import controls as controls  # isort: skip
from seewhy.maps.registry import Method as Method
from seewhy.maps.registry import MethodTable as MethodTable
from seewhy.maps.registry import find_method as find_method
from seewhy.maps.registry import meant_as_keyword as meant_as_keyword
from seewhy.maps.registry import method as method
from seewhy.maps.registry import methods as methods
from seewhy.maps.smoothing import Augment as Augment
from seewhy.maps.smoothing import Noise as Noise
from seewhy.maps.smoothing import Transform as Transform
