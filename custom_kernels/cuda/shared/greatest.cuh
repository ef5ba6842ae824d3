// The greater of two numbers. A NaN stays one, which fmaxf passes over.
__device__ float greatest_of(float a, float b) { return a > b || a != a ? a : b; }
