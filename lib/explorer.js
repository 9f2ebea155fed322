void __LOOKS__;
