"""HTTP: each noun's routes translate, call one service method, and translate back."""
