"""seewhy measured against its peers: the same model, layer and image, in one process, alternating."""
