// The greater of two numbers. A NaN stays one, which metal::max passes over.
METAL_FUNC float greatest_of(float a, float b) { return a > b || a != a ? a : b; }
