"""Known learning algorithms as learners: gradient descent, ridge regression, solvers, kernels."""
