"""Qua²SeDiMo, step by step."""
