"""TensorFlow's DeepLab in plain TensorFlow operations, run apart: it writes what tests compare with.

Stated from the original's graphs (tensorflow/models research/deeplab/model.py, core/xception.py,
research/slim/nets/mobilenet), at an eighth of their width, and nothing of deeplab_zoo is used.
Leaves for each net a folder with ``model.ckpt-*``, ``frozen_inference_graph.pb`` and ``scores.npz``.

    python run_tf_deeplab.py FOLDER NET...
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
CLASSES = 5
# An odd size, wide enough for the largest rate, and an even one, which tells SAME from explicit padding.
SIZES = ((33, 321), (34, 50))
RANDOM = np.random.default_rng(9)
VALUES = {}  # By the variable's name: a net has the same at both output strides.


def thin(channels):
    return max(1, round(channels / 8))


def variable(name, shape, low, high):
    values = VALUES.setdefault(
        f"{v1.get_variable_scope().name}/{name}", RANDOM.uniform(low, high, shape).astype("f4")
    )
    made = v1.constant_initializer(values)
    return v1.get_variable(name, initializer=made, shape=shape, use_resource=False)


def conv(
    x, scope, outputs, kernel=1, stride=1, rate=1, *, act=tf.nn.relu, eps=1e-5, explicit=False
):
    """slim.conv2d, or, with ``outputs`` None, slim.separable_conv2d of channels alone."""
    inputs = x.shape[-1]
    padding = "SAME"
    if explicit and stride > 1:
        side = [kernel // 2] * 2
        x = tf.pad(x, [[0, 0], side, side, [0, 0]])
        padding = "VALID"
    with v1.variable_scope(scope):
        bound = (3 / (kernel * kernel * (inputs if outputs else 1))) ** 0.5
        if outputs is None:
            weights = variable("depthwise_weights", (kernel, kernel, inputs, 1), -bound, bound)
            x = v1.nn.depthwise_conv2d(
                x, weights, (1, stride, stride, 1), padding, rate=(rate, rate), name="depthwise"
            )
        else:
            weights = variable("weights", (kernel, kernel, inputs, outputs), -bound, bound)
            x = v1.nn.conv2d(x, weights, (1, stride, stride, 1), padding, name="Conv2D")
        with v1.variable_scope("BatchNorm"):
            channels = (x.shape[-1],)
            gamma = variable("gamma", channels, 0.5, 1.5)
            beta = variable("beta", channels, -0.5, 0.5)
            mean = variable("moving_mean", channels, -0.3, 0.3)
            var = variable("moving_variance", channels, 0.5, 1.5)
            x = v1.nn.fused_batch_norm(x, gamma, beta, mean, var, eps, is_training=False)[0]
        return act(x) if act else x


def separable(x, scope, outputs, stride=1, rate=1, *, act=tf.nn.relu, eps=1e-5):
    x = conv(x, f"{scope}_depthwise", None, 3, stride, rate, act=act, eps=eps, explicit=True)
    return conv(x, f"{scope}_pointwise", outputs, act=act, eps=eps)


def xception_65(x, output_stride):
    def module(x, scope, depths, skip, stride=1, rate=1, act=None):
        y = x
        inner = None
        for index, depth in enumerate(depths, 1):
            y = y if act else tf.nn.relu(y)
            step = stride if index == 3 else 1
            where = f"{scope}/xception_module/separable_conv{index}"
            y = separable(y, where, thin(depth), step, rate, act=act, eps=1e-3)
            inner = y if index == 2 else inner
        if skip == "conv":
            where = f"{scope}/xception_module/shortcut"
            y += conv(x, where, thin(depths[-1]), 1, stride, act=None, eps=1e-3)
        elif skip == "sum":
            y += x
        return y, inner

    dense = output_stride == 8
    with v1.variable_scope("xception_65"):
        x = conv(x, "entry_flow/conv1_1", thin(32), 3, 2, eps=1e-3, explicit=True)
        x = conv(x, "entry_flow/conv1_2", thin(64), 3, eps=1e-3)
        x, _ = module(x, "entry_flow/block1/unit_1", (128,) * 3, "conv", 2)
        x, low = module(x, "entry_flow/block2/unit_1", (256,) * 3, "conv", 2)
        x, _ = module(x, "entry_flow/block3/unit_1", (728,) * 3, "conv", 1 if dense else 2)
        for unit in range(1, 17):
            rate = 2 if dense else 1
            x, _ = module(x, f"middle_flow/block1/unit_{unit}", (728,) * 3, "sum", rate=rate)
        depths = (728, 1024, 1024)
        x, _ = module(x, "exit_flow/block1/unit_1", depths, "conv", rate=2 if dense else 1)
        depths = (1536, 1536, 2048)
        rate = 4 if dense else 2
        x, _ = module(
            x, "exit_flow/block2/unit_1", depths, "none", rate=rate, act=tf.nn.relu
        )  # fmt: skip
    return x, low


# Channels, stride at full resolution, and rate where the output stride is 16 and 8.
MOBILENET = (
    (16, 1, 1, 1), (24, 2, 1, 1), (24, 1, 1, 1), (32, 2, 1, 1), (32, 1, 1, 1), (32, 1, 1, 1),
    (64, 2, 1, 1), (64, 1, 1, 2), (64, 1, 1, 2), (64, 1, 1, 2), (96, 1, 1, 2), (96, 1, 1, 2),
    (96, 1, 1, 2), (160, 2, 1, 2), (160, 1, 2, 4), (160, 1, 2, 4), (320, 1, 2, 4),
)  # fmt: skip


def mobilenet_v2(x, output_stride):
    reached = 2
    with v1.variable_scope("MobilenetV2"):
        x = conv(x, "Conv", thin(32), 3, 2, act=tf.nn.relu6, eps=1e-3)
        for index, (channels, stride, *rates) in enumerate(MOBILENET):
            stride = 1 if reached == output_stride else stride
            reached *= stride
            y = x
            with v1.variable_scope(f"expanded_conv_{index}" if index else "expanded_conv"):
                if index:
                    y = conv(y, "expand", 6 * x.shape[-1], act=tf.nn.relu6, eps=1e-3)
                rate = rates[output_stride == 8]
                y = conv(y, "depthwise", None, 3, stride, rate, act=tf.nn.relu6, eps=1e-3)
                y = conv(y, "project", thin(channels), act=None, eps=1e-3)
            x = y + x if stride == 1 and x.shape[-1] == y.shape[-1] else y
    return x, None


def resize(x, size):
    return v1.image.resize_bilinear(x, size, align_corners=True)


def head(features, low, rates):
    # The original pools over the crop, which at its test size is the whole image.
    pooled = conv(tf.reduce_mean(features, (1, 2), keepdims=True), "image_pooling", thin(256))
    branches = [resize(pooled, tf.shape(features)[1:3]), conv(features, "aspp0", thin(256))]
    for index, rate in enumerate(rates, 1):
        branches.append(separable(features, f"aspp{index}", thin(256), rate=rate))
    x = conv(tf.concat(branches, 3), "concat_projection", thin(256))
    if low is not None:
        with v1.variable_scope("decoder"):
            low = conv(low, "feature_projection0", thin(48))
            x = tf.concat([resize(x, tf.shape(low)[1:3]), low], 3)
            x = separable(x, "decoder_conv0", thin(256))
            x = separable(x, "decoder_conv1", thin(256))
    with v1.variable_scope("logits/semantic"):
        weights = variable("weights", (1, 1, x.shape[-1], CLASSES), -1, 1)
        biases = variable("biases", (CLASSES,), -1, 1)
        return tf.nn.bias_add(v1.nn.conv2d(x, weights, 1, "SAME"), biases, name="BiasAdd")


def run(folder, backbone, output_stride, rates):
    """Build a net, save and freeze it, score pictures."""
    folder.mkdir()
    with tf.Graph().as_default() as graph, v1.Session() as session:
        image = v1.placeholder(tf.uint8, [None, None, None, 3], name="ImageTensor")
        x = (2.0 / 255.0) * tf.cast(image, tf.float32) - 1.0
        scores = head(*backbone(x, output_stride), rates)
        full = resize(scores, tf.shape(image)[1:3])
        tf.argmax(full, 3, name="SemanticPredictions")
        first = v1.global_variables()[0]
        for slot in ("RMSProp", "RMSProp_1", "ExponentialMovingAverage"):
            variable(f"{first.op.name}/{slot}", first.shape, 0, 1)
        v1.train.create_global_step()
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver()
        saver.save(session, str(folder / "model.ckpt"), global_step=3, write_meta_graph=False)
        (folder / "checkpoint").unlink()
        frozen = v1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(add_shapes=True), ["SemanticPredictions"]
        )
        (folder / "frozen_inference_graph.pb").write_bytes(frozen.SerializeToString())
        out = {}
        for height, width in SIZES:
            picture = RANDOM.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
            found = session.run([scores, full], {image: picture})
            name = f"{height}x{width}"
            out |= {f"image_{name}": picture, f"scores_{name}": found[0], f"full_{name}": found[1]}
        np.savez(folder / "scores.npz", **out)


NETS = {
    "xception": (xception_65, 16, (6, 12, 18)),
    "xception_8": (xception_65, 8, (12, 24, 36)),
    "mobilenet": (mobilenet_v2, 16, ()),
    "mobilenet_8": (mobilenet_v2, 8, ()),
}

if __name__ == "__main__":
    for net in sys.argv[2:]:
        if not net.endswith("_8"):
            VALUES.clear()
        run(Path(sys.argv[1]) / net, *NETS[net])
