//go:build race

package segment_test

// less divides the number of runs of a test: the race detector makes each some
// ten times slower.
const less = 10
