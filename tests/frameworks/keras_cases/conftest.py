"""The backend is asked for before Keras is imported."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
