"""The ONNX dialect: reader, operator table, writer and runner, on onnx-ir."""
