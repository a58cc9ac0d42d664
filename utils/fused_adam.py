"""Keras' Adam with TensorFlow's fused kernel: one pass over the weights instead of ten."""

import keras
import tensorflow as tf


class FusedAdam(keras.optimizers.Adam):
    """Adam (Kingma and Ba 2015) as `keras.optimizers.Adam` defines it, to float rounding.

    Keras writes the update as separate operations, each of which reads and writes arrays of the
    size of the weights; XLA would fuse them, but slows down the matrix product beside them and
    compiles each batch size anew. `ResourceApplyAdam` does the whole update in one kernel.
    Learning rate, weight decay, clipping and averages stay Keras'.
    """

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Update one variable and its two moments in place; Keras calls it in the compiled step.

        Raises:
            NotImplementedError: with `amsgrad`, which the kernel does not know.
        """
        if self.amsgrad:
            raise NotImplementedError("FusedAdam has no amsgrad; take keras.optimizers.Adam")
        dtype = variable.dtype
        index = self._get_variable_index(variable)
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        step = tf.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )
