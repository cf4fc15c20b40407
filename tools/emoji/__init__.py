"""Making of the embedded emoji models, from corpus to shipped diffusers folders."""
