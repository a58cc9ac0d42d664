"""Keras' Adam with TensorFlow's fused kernel: one pass over the weights instead of ten."""

from collections.abc import Sequence

import keras
import tensorflow as tf


class FusedAdam(keras.optimizers.Adam):
    """Adam (Kingma and Ba 2015) as `keras.optimizers.Adam` defines it, to float rounding.

    Keras writes the update as separate operations, each of which reads and writes arrays of the
    size of the weights; XLA would fuse them, but slows down the matrix product next to them and
    compiles each batch size separately. `ResourceApplyAdam` does the whole update in one kernel.
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


class LayerwiseAdam(FusedAdam):
    """FusedAdam with a factor on the learning rate of every variable.

    Discriminative rates and gradual unfreezing (Howard and Ruder 2018) are such factors. Weight
    decay is not scaled by them.
    """

    def set_rates(self, variables: Sequence[keras.Variable], rates: Sequence[float]) -> None:
        """Set the factor of each trainable variable; at 0 it stays as it is.

        Args:
            variables: All that the optimizer updates, as `model.trainable_variables` lists them.
            rates: A factor each, 0 or more.

        Raises:
            ValueError: if there is not one factor for every variable, or one is negative.
        """
        if len(rates) != len(variables) or min(rates) < 0:
            raise ValueError(
                f"{len(variables)} variables need as many factors of 0 or more, "
                f"not {len(rates)} of which the least is {min(rates)}"
            )
        if not self.built:
            self.build(variables)
        self._rates.assign(rates)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the optimizer's state; every factor is 1 until `set_rates` says otherwise."""
        super().build(variables)
        if not hasattr(self, "_rates"):
            self._rates = tf.Variable(tf.ones(len(variables)), trainable=False, name="rates")

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Update one variable with its own share of the learning rate."""
        rate = self._rates[self._get_variable_index(variable)]
        super().update_step(gradient, variable, tf.cast(learning_rate, rate.dtype) * rate)
