"""Reading values out of a call: paths, times, and the types of data maps. Pure."""
