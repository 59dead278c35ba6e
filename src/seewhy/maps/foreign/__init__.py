"""Methods of other libraries behind the same interface; neither library is imported before one of its methods is asked for."""
