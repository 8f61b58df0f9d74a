//! Links the profiler beside `pyroscope`; what happens then is in the test.
