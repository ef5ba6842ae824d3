// VEC elements, which a thread reads and writes at once.
template <typename X>
struct alignas(sizeof(X) * VEC) Vector {
  X at[VEC];
};

// A slice of a larger array may start anywhere: vectors are used only where the address allows them.
template <typename X>
__device__ Vector<X> load(const X* from) {
  if (reinterpret_cast<unsigned long long>(from) % sizeof(Vector<X>) == 0) {
    return *reinterpret_cast<const Vector<X>*>(from);
  }
  Vector<X> all;
  for (int i = 0; i < VEC; ++i) all.at[i] = from[i];
  return all;
}
