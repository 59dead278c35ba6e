"""Models of Keras 3, on whichever backend is configured: TensorFlow, JAX or PyTorch. The model itself is not changed."""

from seewhy.frameworks.keras.shell import KerasShell as KerasShell
