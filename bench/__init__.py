"""seewhy measured against its peers: the same model, layer and image, in one process, alternating."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # pytorch-grad-cam's bars; read when tqdm is imported
