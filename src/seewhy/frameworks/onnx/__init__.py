"""Models of ONNX, run by ONNX Runtime: from a file or an `onnx.ModelProto`, without derivatives."""

from seewhy.frameworks.onnx.shell import OnnxShell as OnnxShell
