//! Links the profiler beside `pprof`; what happens then is in the test.
