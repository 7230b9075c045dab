"""What the continual vision-language study printed: AP in percent, as in its tables, one slip of columns settled."""

from __future__ import annotations

DOMAINS = ["Kvasir-SEG", "BKAI", "ClinicDB", "Sessile", "SinGAN", "CVC-300", "ColonDB", "ETIS", "AVG"]
BY_CENTER: dict[str, list[float]] = {  # the last three sets were never trained on
    "zero-shot": [7.1, 4.5, 4.1, 4.2, 4.2, 6.1, 3.2, 1.0, 4.3],
    # Of this row alone the print slips: its Table 1 has BKAI 79.3, ClinicDB 82.2 and Kvasir-SEG 75.9 on the diagonal.
    "specialized": [75.9, 79.3, 82.2, 62.7, 93.1, 72.4, 61.1, 69.9, 74.6],
    "joint": [65.7, 79.8, 80.0, 58.0, 86.2, 69.3, 60.0, 61.3, 70.0],
    "joint k-shot": [66.2, 72.0, 72.5, 58.1, 78.2, 74.1, 59.5, 64.1, 68.1],
    "sequential": [18.4, 26.8, 19.2, 4.1, 85.2, 26.0, 18.7, 19.5, 27.2],
    "rehearsal": [65.6, 68.9, 64.5, 54.2, 84.4, 69.4, 56.3, 55.6, 64.9],
}
TASKS = ["Kvasir-SEG", "DFUC", "TN3K", "ADNI", "AVG"]
BY_TASK: dict[str, list[float]] = {
    "zero-shot": [8.7, 0.8, 1.9, 0.0, 2.9],
    "specialized": [75.9, 50.3, 62.1, 48.6, 59.2],
    "joint": [73.6, 49.9, 61.0, 47.9, 58.1],
    "joint k-shot": [64.1, 40.2, 45.5, 38.6, 47.1],
    "sequential": [1.5, 2.2, 16.7, 48.8, 17.3],
    "rehearsal": [57.1, 37.7, 49.2, 47.8, 48.0],
}
TASKS_CROSSED = ["Pol", "BCC", "CPM", "DFU", "ISI", "ADN", "LUN", "TBX", "TN3"]
CROSSED: dict[str, list[float]] = {  # its Table 2: rows trained on, columns tested on
    "Polyp": [68.1, 26.6, 24.0, 25.1, 29.8, 0.0, 0.0, 0.3, 11.1],
    "BCCD": [23.7, 62.5, 4.1, 9.1, 21.4, 0.0, 0.0, 0.4, 6.8],
    "CPM-17": [36.1, 19.6, 44.2, 29.0, 24.6, 0.0, 0.0, 0.3, 14.0],
    "DFUC": [29.4, 24.6, 16.4, 50.3, 28.1, 0.0, 0.0, 0.4, 13.3],
    "ISIC2016": [17.5, 2.5, 6.0, 3.6, 59.3, 0.0, 0.0, 0.3, 5.9],
    "ADNI": [0.0, 0.2, 0.3, 0.0, 0.1, 48.6, 0.0, 0.0, 0.0],
    "LUNA16": [12.1, 18.0, 11.3, 8.2, 10.7, 0.0, 40.6, 0.0, 0.1],
    "TBX11k": [30.9, 16.9, 10.3, 16.2, 28.6, 0.0, 0.0, 37.2, 2.3],
    "TN3K": [17.0, 11.7, 3.2, 6.0, 20.1, 0.0, 0.0, 0.9, 62.1],
}
