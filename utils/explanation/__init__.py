"""Heat maps, and the experiments that say what they are worth."""
