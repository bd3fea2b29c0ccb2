"""TensorRT, native or for RTX: the engines that `ser-export trt` compiled into a bundle, and how they are run."""
