"""A checkpoint that TensorFlow wrote; nothing the tests wrote themselves can stand for it."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch

from cleangpt2.model.config import GPT2Config
from cleangpt2.model.pretrained import load_model
from tests.model.convert.writers import openai_variables, write_hparams
from tests.model.hard_weights import hard_model

CONFIG = GPT2Config(vocab_size=523, n_positions=64, n_embd=96, n_layer=5, n_head=6)

SAVE = """
import sys
import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_eager_execution()
values, folder = np.load(sys.argv[1]), sys.argv[2]
with tf.Session() as session:
    weights = [tf.get_variable(name.replace("|", "/"), initializer=values[name]) for name in values]
    step = tf.get_variable("global_step", initializer=np.int64(5))
    loss = tf.add_n([tf.reduce_sum(weight * weight) for weight in weights])
    tf.train.AdamOptimizer(1e-3).minimize(loss)
    session.run(tf.global_variables_initializer())
    tf.train.Saver(weights).save(session, folder + "/model.ckpt")
    tf.train.Saver().save(session, folder + "/training", global_step=100)
"""


# It is too large to ask of anybody, so its absence is never a failure (as `require` would have it).
@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("tensorflow"), reason="tensorflow not installed")
@pytest.mark.parametrize("prefix", ["model.ckpt", "training-100"])
def test_every_tensor_that_tensorflow_saved_is_read_bit_for_bit(tmp_path, prefix):
    model = hard_model(CONFIG)
    arrays = {name.replace("/", "|"): v for name, v in openai_variables(model).items()}
    np.savez(tmp_path / "values.npz", **arrays)
    write_hparams(tmp_path, model)
    command = [sys.executable, "-c", SAVE, str(tmp_path / "values.npz"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    loaded = dict(load_model(tmp_path / f"{prefix}.index", device="cpu").named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, loaded.pop(name)), name
    assert not loaded
