"""Kernel generators: each file is one family of loops as TIR, parametrised by a frozen dataclass of numbers."""
