"""Arrays to pictures. The only place where 8-bit colours are made; it never sees a model."""

from seewhy.render.figures import figure as figure
from seewhy.render.files import html_fragment as html_fragment
from seewhy.render.files import png_bytes as png_bytes
from seewhy.render.files import save as save
from seewhy.render.files import save_grid as save_grid
from seewhy.render.overlay import heat as heat
from seewhy.render.overlay import overlay as overlay
from seewhy.render.page import figure_bytes as figure_bytes
