"""How the embedded emoji models are made, from corpus to shipped diffusers folders."""
