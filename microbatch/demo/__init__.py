"""``microbatch demo``: the main job on real input, with a check of the result; needs ``pip install 'microbatch[demo]'``."""
