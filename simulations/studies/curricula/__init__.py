"""Studies whose arms are whole curricula, each federated by itself: MedCoSS and MedSeqFT beside their baselines."""
