"""Methods × seeds by one recipe, trained as processes and compared with a baseline."""
