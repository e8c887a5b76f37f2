"""
The users table once more: slow, obvious and independent of the product, to hold the product against.

Nothing here imports emarsys_cdp. `table.py` is what a users table can do, `identity.py` the model of one,
`properties.py` what has to be true of any, `timelines.py` makes the calls to try it with, `vectors.py` reads the
vectors of `contract/vectors/semantics`.
"""
