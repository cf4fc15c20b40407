/* Bytes turned in tiles: rows become columns. */
#ifndef MEZZOTINT_TRANSPOSE_H
#define MEZZOTINT_TRANSPOSE_H

#include "common.h"

enum { TILE = 64, BLOCK = 8 };

/* 8 x 8 bytes: swaps the halves of the upper and lower rows across, then quarters, then bytes. */
INLINE void transpose_block(
    const uint8_t *from, uint8_t *to, int64_t stride) {
    static const uint64_t masks[] = {0x00000000ffffffff, 0x0000ffff0000ffff, 0x00ff00ff00ff00ff};
    uint64_t rows[BLOCK];
    for (int k = 0; k < BLOCK; k++) memcpy(rows + k, from + k * TILE, BLOCK);
    for (int step = 0, span = BLOCK / 2; span > 0; step++, span /= 2)
        for (int k = 0; k < BLOCK; k++) {
            if (k & span) continue;
            const uint64_t crossing = ((rows[k] >> 8 * span) ^ rows[k + span]) & masks[step];
            rows[k + span] ^= crossing;
            rows[k] ^= crossing << 8 * span;
        }
    for (int k = 0; k < BLOCK; k++) memcpy(to + k * stride, rows + k, BLOCK);
}

/* The tile's `rows` of `columns` bytes become columns of `to`, whose rows are `stride` apart. */
INLINE void transpose_tile(
    const uint8_t *tile, int64_t rows, int64_t columns, uint8_t *to, int64_t stride) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const int64_t block_rows = rows / BLOCK * BLOCK, block_columns = columns / BLOCK * BLOCK;
#else
    const int64_t block_rows = 0, block_columns = 0;
#endif
    for (int64_t i = 0; i < block_columns; i += BLOCK)
        for (int64_t j = 0; j < block_rows; j += BLOCK)
            transpose_block(tile + j * TILE + i, to + i * stride + j, stride);
    for (int64_t i = 0; i < columns; i++)
        for (int64_t j = i < block_columns ? block_rows : 0; j < rows; j++)
            to[i * stride + j] = tile[j * TILE + i];
}

#endif
