"""An SAP Emarsys destination for open-source customer data platforms."""

__version__ = "0.1.0"
