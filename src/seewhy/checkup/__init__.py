"""The doctor: what works on a model, what does not, and what to do; see :func:`seewhy.doctor`."""
