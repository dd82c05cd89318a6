"""The reference pretraining job: a small real model, real text, a checkpoint every so often.

It needs nothing that a Python installation with ckptmerge in it does not have: the text is read
from the installation itself (``text``), the tokenizer is trained on it (``tokenizer``), the model
is a Llama-style decoder in Hugging Face layout (``model``), and ``job`` trains it and writes a
folder every so many steps, as any pretraining run would.
"""
