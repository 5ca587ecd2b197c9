select uses from retention
