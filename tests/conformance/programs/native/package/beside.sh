word() { echo imported; }
