"""x86-64 processors: AVX-512, AVX2, and code that runs on every one of them."""
