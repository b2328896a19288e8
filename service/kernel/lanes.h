/* Sixteen fixed lanes of a sum in double. */
#ifndef DESCENT_KERNEL_LANES_H
#define DESCENT_KERNEL_LANES_H

enum { LANES = 16 };

/* Halves are written out, for a loop over them is done in memory: sums of a few numbers are as
 * frequent as those of many in a model of a thousand small tensors. */
static inline double lanes_sum(const double lane[LANES])
{
    double eight[8], four[4];

    for (int k = 0; k < 8; k++)
        eight[k] = lane[k] + lane[k + 8];
    for (int k = 0; k < 4; k++)
        four[k] = eight[k] + eight[k + 4];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

#endif
