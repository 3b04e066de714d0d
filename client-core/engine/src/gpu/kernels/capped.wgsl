// c · tanh(x / c), which holds x within ±c. Written with the exponential, whose exactness is specified better than tanh's.
// From the host: CAP (c).

fn capped(x: f32) -> f32 {
    // Past 80 the exponential would overflow, and the result is c to the last bit anyway.
    return CAP - 2.0 * CAP / (exp(min(x * (2.0 / CAP), 80.0)) + 1.0);
}
