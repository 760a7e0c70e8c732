//! Priors whose posterior mean is known exactly: what every sampler and posterior method is checked against.
