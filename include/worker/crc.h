/* crc.h -- CRC-32C, the check sum of everything the worker keeps on disk.  Floor 1.
 *
 * The Castagnoli polynomial, because processors have an instruction for it: several GB/s on
 * x86-64, some hundred MB/s elsewhere.  crc_update(0, "123456789", 9) is 0xe3069283.
 */
#ifndef WORKER_CRC_H
#define WORKER_CRC_H

#include <stddef.h>
#include <stdint.h>

/* crc_update(crc, data, n): the sum of what ${crc} already covers, followed by ${n} bytes.  Begin
 * with 0, or with a salt: sums with different salts do not match. */
uint32_t crc_update(uint32_t crc, const void *data, size_t n);

/* crc_plain(crc, data, n): the same without the instruction, so that a spec can compare the two. */
uint32_t crc_plain(uint32_t crc, const void *data, size_t n);

#endif
