plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "org.example.digits"
    compileSdk = 35

    defaultConfig {
        applicationId = "org.example.digits"
        minSdk = 24
        targetSdk = 35
        versionCode = 1
        versionName = "1.0"
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
    // LiteRT maps files that are not compressed in the package.
    androidResources { noCompress += "tflite" }
}

dependencies {
    implementation("com.google.ai.edge.litert:litert:2.3.0")
    // The GPU is an artifact of its own. Without it, options that list GPU and CPU run on the CPU, and say nothing.
    implementation("com.google.ai.edge.litert:litert-gpu:2.3.0")
    testImplementation("junit:junit:4.13.2")
}
