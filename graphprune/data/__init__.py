"""Where calibration data comes from: one kind of source a file.

Every source yields arrays by the names of the inputs of the model; :mod:`graphprune.data.inputs` checks them, and
:mod:`graphprune.data.batches` makes batches of them. Knows no framework.
"""
