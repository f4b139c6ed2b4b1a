// What lies between the matrix products of a forward pass, for rows that are few: there a call of torch costs more
// than what it computes. Each function exists for float32 and for bf16; sums are float32 in both.
//
// Rows are contiguous. Addresses of caches and adapters come as integers, because they lie in many tensors.

#include <cstdint>
#include <cstring>
#include <cmath>
#include <vector>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

struct Bf16 {
    uint16_t bits;
};

inline float read(float value) { return value; }

inline float read(Bf16 value) {
    uint32_t wide = uint32_t(value.bits) << 16;
    float out;
    std::memcpy(&out, &wide, 4);
    return out;
}

inline void write(float& place, float value) { place = value; }

inline void write(Bf16& place, float value) {  // to the nearest, ties to even; what is no number stays none
    uint32_t wide;
    std::memcpy(&wide, &value, 4);
    uint32_t nearest = (wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16;
    place.bits = value != value ? uint16_t(0x7fc0) : uint16_t(nearest);
}

inline void cut(float& place, float value) { place = value; }

inline void cut(Bf16& place, float value) {  // for a value that bf16 has, as all of int8
    uint32_t wide;
    std::memcpy(&wide, &value, 4);
    place.bits = uint16_t(wide >> 16);
}

// e to the x, to 2e-7; branchless, so that loops over it are vectorized.
inline float power(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    float whole = std::floor(x * 1.44269504f + 0.5f);
    float rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float value = 1.9875691500e-4f;
    value = value * rest + 1.3981999507e-3f;
    value = value * rest + 8.3334519073e-3f;
    value = value * rest + 4.1665795894e-2f;
    value = value * rest + 1.6666665459e-1f;
    value = value * rest + 5.0000001201e-1f;
    value = value * rest * rest + rest + 1.0f;
    int32_t scale = (int32_t(whole) + 127) << 23;
    float factor;
    std::memcpy(&factor, &scale, 4);
    return value * factor;
}

template <class A, class B>
float dot(const A* a, const B* b, int64_t size) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < size; i++) sum += read(a[i]) * read(b[i]);
    return sum;
}

#ifdef __AVX512BF16__
// The processor's own product of bf16 pairs; what does not fill a register comes last, one by one.
float dot(const Bf16* a, const Bf16* b, int64_t size) {
    __m512 first = _mm512_setzero_ps(), second = _mm512_setzero_ps();
    int64_t i = 0;
    for (; i + 64 <= size; i += 64) {
        first = _mm512_dpbf16_ps(first, (__m512bh)_mm512_loadu_si512(a + i), (__m512bh)_mm512_loadu_si512(b + i));
        second = _mm512_dpbf16_ps(second, (__m512bh)_mm512_loadu_si512(a + i + 32),
                                  (__m512bh)_mm512_loadu_si512(b + i + 32));
    }
    float sum = _mm512_reduce_add_ps(_mm512_add_ps(first, second));
    for (; i < size; i++) sum += read(a[i]) * read(b[i]);
    return sum;
}
#endif

template <class T>
void widen(const T* from, float* to, int64_t size) {
#pragma omp simd
    for (int64_t i = 0; i < size; i++) to[i] = read(from[i]);
}

// rows += more, where there is more; out = RMSNorm(rows).
template <class T>
void norm(T* rows, const T* more, const T* weight, T* out, int64_t count, int64_t size, float epsilon) {
#pragma omp parallel for if (count > 1)
    for (int64_t row = 0; row < count; row++) {
        T* at = rows + row * size;
        float squares = 0;
        if (more != nullptr) {
            const T* add = more + row * size;
#pragma omp simd
            for (int64_t i = 0; i < size; i++) write(at[i], read(at[i]) + read(add[i]));
        }
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < size; i++) squares += read(at[i]) * read(at[i]);
        float scale = 1.0f / std::sqrt(squares / float(size) + epsilon);
        T* to = out + row * size;
#pragma omp simd
        for (int64_t i = 0; i < size; i++) write(to[i], read(at[i]) * scale * read(weight[i]));
    }
}

// out = silu(first half of a row) * its second half.
template <class T>
void gate(const T* both, T* out, int64_t count, int64_t size) {
    const int64_t piece = 512, pieces = (size + piece - 1) / piece;
#pragma omp parallel for if (count * size > 2048)
    for (int64_t at = 0; at < count * pieces; at++) {
        int64_t row = at / pieces, start = at % pieces * piece, end = start + piece < size ? start + piece : size;
        const T *first = both + row * 2 * size, *second = first + size;
        T* to = out + row * size;
#pragma omp simd
        for (int64_t i = start; i < end; i++) {
            float value = read(first[i]);
            write(to[i], value / (1.0f + power(-value)) * read(second[i]));
        }
    }
}

// out = rows · weightᵀ, each of whose rows is scaled, + bias, where there is one.
template <class T>
void int8_linear(const T* rows, const int8_t* weight, const float* scales, const T* bias, T* out, int64_t count,
                 int64_t ins, int64_t outs) {
#pragma omp parallel
    {
        std::vector<T> wide(ins);
#pragma omp for schedule(static)
        for (int64_t o = 0; o < outs; o++) {
            const int8_t* from = weight + o * ins;
#pragma omp simd
            for (int64_t i = 0; i < ins; i++) cut(wide[i], float(from[i]));
            for (int64_t row = 0; row < count; row++) {
                float value = dot(wide.data(), rows + row * ins, ins) * scales[o];
                write(out[row * outs + o], bias == nullptr ? value : value + read(bias[o]));
            }
        }
    }
}

// Where a row's keys and values lie: [layers, heads, tokens, size] each, from these addresses on.
struct Place {
    int64_t keys, values, layer_bytes, tokens, position;
};

// Turns the queries and keys of ``mixed`` [count, heads + 2 kv_heads, size] by their positions' angles [count, size /
// 2], and lays keys and values into the caches.
template <class T>
void store(T* mixed, const T* cos, const T* sin, const Place* places, int64_t layer, int64_t count, int64_t heads,
           int64_t kv_heads, int64_t size) {
    const int64_t half = size / 2;
#pragma omp parallel for if (count > 1)
    for (int64_t row = 0; row < count; row++) {
        const Place& place = places[row];
        T* at = mixed + row * (heads + 2 * kv_heads) * size;
        const T *c = cos + row * half, *s = sin + row * half;
        for (int64_t head = 0; head < heads + kv_heads; head++, at += size) {
#pragma omp simd
            for (int64_t i = 0; i < half; i++) {
                float a = read(at[i]), b = read(at[half + i]), x = read(c[i]), y = read(s[i]);
                write(at[i], a * x - b * y);
                write(at[half + i], b * x + a * y);
            }
        }
        T* keys = reinterpret_cast<T*>(place.keys + layer * place.layer_bytes);
        T* values = reinterpret_cast<T*>(place.values + layer * place.layer_bytes);
        for (int64_t head = 0; head < kv_heads; head++) {
            int64_t to = (head * place.tokens + place.position) * size;
            std::memcpy(keys + to, at - (kv_heads - head) * size, size * sizeof(T));
            std::memcpy(values + to, at + head * size, size * sizeof(T));
        }
    }
}

// Softmax of scores [count] times ``scale``, in place.
template <class T>
void softmax(T* scores, int64_t count, float scale) {
    float most = read(scores[0]), all = 0;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < count; i++) most = read(scores[i]) > most ? read(scores[i]) : most;
#pragma omp simd reduction(+ : all)
    for (int64_t i = 0; i < count; i++) all += power((read(scores[i]) - most) * scale);
    float share = 1.0f / all;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) write(scores[i], power((read(scores[i]) - most) * scale) * share);
}

// Attention of one row to ``tokens`` of its cache, of the queries that share a key head. SIZE: of a head, where it is
// known at compile time, else 0.
template <class T, int64_t SIZE>
void attend_head(const T* queries, T* out, const T* keys, const T* values, int64_t tokens, int64_t shared,
                 int64_t given_size, float scale, std::vector<float>& room) {
    const int64_t size = SIZE ? SIZE : given_size;
    room.resize(tokens + size);
    float kept[SIZE ? SIZE : 1];  // in registers, where its length is known
    float *scores = room.data(), *sums = SIZE ? kept : scores + tokens;
    for (int64_t q = 0; q < shared; q++, queries += size, out += size) {
        for (int64_t t = 0; t < tokens; t++) scores[t] = dot(keys + t * size, queries, size);
        softmax(scores, tokens, scale);
        for (int64_t i = 0; i < size; i++) sums[i] = 0;
        for (int64_t t = 0; t < tokens; t++) {
            const T* from = values + t * size;
#pragma omp simd
            for (int64_t i = 0; i < size; i++) sums[i] += scores[t] * read(from[i]);
        }
        for (int64_t i = 0; i < size; i++) write(out[i], sums[i]);
    }
}

// ``chosen``: the rows of ``mixed`` that attend, each up to its own position; ``out`` [all rows, heads, size].
template <class T>
void attend(const T* mixed, T* out, const Place* places, const int64_t* chosen, int64_t layer, int64_t count,
            int64_t heads, int64_t kv_heads, int64_t size, float scale) {
    const int64_t shared = heads / kv_heads;
    auto of_head = size == 64 ? attend_head<T, 64> : size == 128 ? attend_head<T, 128> : attend_head<T, 0>;
#pragma omp parallel
    {
        std::vector<float> room;
#pragma omp for schedule(dynamic)
        for (int64_t at = 0; at < count * kv_heads; at++) {
            int64_t row = chosen[at / kv_heads], head = at % kv_heads;
            const Place& place = places[row];
            int64_t start = head * place.tokens * size;
            const T* keys = reinterpret_cast<const T*>(place.keys + layer * place.layer_bytes) + start;
            const T* values = reinterpret_cast<const T*>(place.values + layer * place.layer_bytes) + start;
            const T* queries = mixed + (row * (heads + 2 * kv_heads) + head * shared) * size;
            T* to = out + (row * heads + head * shared) * size;
            of_head(queries, to, keys, values, place.position + 1, shared, size, scale, room);
        }
    }
}

// Rows of scores [count, before + span], of ``span`` tokens that come after ``before`` others, again and again: softmax
// of what a token sees, and zeros for what comes after it.
template <class T>
void causal(T* scores, int64_t count, int64_t span, int64_t before, float scale) {
    const int64_t width = before + span;
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t row = 0; row < count; row++) {
        T* of = scores + row * width;
        int64_t seen = before + row % span + 1;
        softmax(of, seen, scale);
        for (int64_t i = seen; i < width; i++) write(of[i], 0.0f);
    }
}

// An adapter's part of a group of modules in all layers: down [layers, rank, modules, in], up [layers, rank, outs].
// Address 0: it leaves the group alone. ``start``: its first token in the list of tokens.
struct Part {
    int64_t down, up, rank, start, end;
};

const int64_t BLOCK = 64;  // columns that are added to at once

// to += the sum of rows of ``up`` [rank, BLOCK], each times its share; shares are ``step`` apart.
template <class T>
inline __attribute__((always_inline)) void add(T* to, const float* up, const float* shares, int64_t rank, int64_t step,
                                               int64_t size) {
    float sums[BLOCK];
    widen(to, sums, size);
    for (int64_t r = 0; r < rank; r++) {
        const float share = shares[r * step];
        const float* from = up + r * BLOCK;
#pragma omp simd
        for (int64_t i = 0; i < size; i++) sums[i] += share * from[i];
    }
    for (int64_t i = 0; i < size; i++) write(to[i], sums[i]);
}

// out += what each row's adapter makes of it: ``rows`` [.., ins], ``out`` [.., sum of widths]. ``hidden``: room for
// [tokens, most_rank, modules].
template <class T>
void lora(const T* rows, T* out, const Part* parts, const int64_t* tokens, const int64_t* widths, int64_t layer,
          int64_t count, int64_t modules, int64_t ins, int64_t outs, float* hidden, int64_t most_rank) {
    const int64_t width = most_rank * modules, some = 8, lanes = (width + some - 1) / some;
    const int64_t piece = 4 * BLOCK, pieces = (outs + piece - 1) / piece;
#pragma omp parallel
    {
        std::vector<float> wide(most_rank * BLOCK);
#pragma omp for schedule(static)
        for (int64_t at = 0; at < count * lanes; at++) {
            const Part& part = parts[at / lanes];
            int64_t first = at % lanes * some, past = first + some;
            if (past > part.rank * modules) past = part.rank * modules;
            if (part.down == 0) continue;
            const T* down = reinterpret_cast<const T*>(part.down) + layer * part.rank * modules * ins;
            for (int64_t t = part.start; t < part.end; t++)
                for (int64_t place = first; place < past; place++)
                    hidden[t * width + place] = dot(down + place * ins, rows + tokens[t] * ins, ins);
        }
#pragma omp for schedule(static)
        for (int64_t at = 0; at < count * pieces; at++) {
            const Part& part = parts[at / pieces];
            if (part.up == 0) continue;
            const T* up = reinterpret_cast<const T*>(part.up) + layer * part.rank * outs;
            int64_t first = at % pieces * piece, past = first + piece < outs ? first + piece : outs;
            for (int64_t module = 0, end = widths[0]; first < past;) {
                while (first >= end) end += widths[++module];
                int64_t high = first + BLOCK < past ? first + BLOCK : past;
                if (high > end) high = end;
                for (int64_t r = 0; r < part.rank; r++) widen(up + r * outs + first, &wide[r * BLOCK], high - first);
                for (int64_t t = part.start; t < part.end; t++) {
                    T* to = out + tokens[t] * outs + first;
                    const float* shares = hidden + t * width + module;
                    if (high - first == BLOCK)  // the compiler keeps the sums in registers, then
                        add(to, wide.data(), shares, part.rank, modules, BLOCK);
                    else
                        add(to, wide.data(), shares, part.rank, modules, high - first);
                }
                first = high;
            }
        }
    }
}

}  // namespace

#define FOR(T, NAME)                                                                                                 \
    void norm_##NAME(void* rows, void* more, void* weight, void* out, int64_t count, int64_t size, float epsilon) {  \
        norm((T*)rows, (T*)more, (T*)weight, (T*)out, count, size, epsilon);                                         \
    }                                                                                                                \
    void gate_##NAME(void* both, void* out, int64_t count, int64_t size) { gate((T*)both, (T*)out, count, size); }   \
    void int8_linear_##NAME(void* rows, void* weight, void* scales, void* bias, void* out, int64_t count, int64_t ins,  \
                            int64_t outs) {                                                                          \
        int8_linear((T*)rows, (int8_t*)weight, (float*)scales, (T*)bias, (T*)out, count, ins, outs);                 \
    }                                                                                                                \
    void store_##NAME(void* mixed, void* cos, void* sin, void* places, int64_t layer, int64_t count, int64_t heads,  \
                      int64_t kv_heads, int64_t size) {                                                              \
        store((T*)mixed, (T*)cos, (T*)sin, (Place*)places, layer, count, heads, kv_heads, size);                     \
    }                                                                                                                \
    void attend_##NAME(void* mixed, void* out, void* places, void* chosen, int64_t layer, int64_t count,             \
                       int64_t heads, int64_t kv_heads, int64_t size, float scale) {                                 \
        attend((T*)mixed, (T*)out, (Place*)places, (int64_t*)chosen, layer, count, heads, kv_heads, size, scale);    \
    }                                                                                                                \
    void causal_##NAME(void* scores, int64_t count, int64_t span, int64_t before, float scale) {                     \
        causal((T*)scores, count, span, before, scale);                                                              \
    }                                                                                                                \
    void lora_##NAME(void* rows, void* out, void* parts, void* tokens, void* widths, int64_t layer, int64_t count,   \
                     int64_t modules, int64_t ins, int64_t outs, void* hidden, int64_t most_rank) {                  \
        lora((T*)rows, (T*)out, (Part*)parts, (int64_t*)tokens, (int64_t*)widths, layer, count, modules, ins, outs,  \
             (float*)hidden, most_rank);                                                                             \
    }

extern "C" {
FOR(float, float32)
FOR(Bf16, bfloat16)
}
