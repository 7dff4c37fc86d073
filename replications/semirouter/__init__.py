"""SemiRouter: sparse data, the R-adapter, and the energy table (Wang et al.)."""
