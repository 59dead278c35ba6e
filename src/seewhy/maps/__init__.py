"""The methods: pure functions from what a recording holds to a raw map. One function, one decorator, nothing else to edit."""

from seewhy.maps import controls as controls
from seewhy.maps import gradient as gradient
from seewhy.maps.registry import Method as Method
from seewhy.maps.registry import MethodTable as MethodTable
from seewhy.maps.registry import find_method as find_method
from seewhy.maps.registry import method as method
from seewhy.maps.registry import methods as methods
