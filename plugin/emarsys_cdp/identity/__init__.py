"""Who a call is of: reading identifiers, finding the person, adding the call to the users table. Pure."""
